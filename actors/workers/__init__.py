"""Classes that own one resource each; Ray makes actors of them."""
