"""What removes a private Ray, also after its driver was killed."""
