"""Task-oriented dialogue: the policy is a clerk who asks a user for three things and books them."""
