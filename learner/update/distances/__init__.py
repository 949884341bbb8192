"""How far the policy is from where it started, and from what sampled its batch."""
