"""Who holds workers, hands them work and replaces them."""
