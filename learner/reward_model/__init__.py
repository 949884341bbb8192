"""A model that scores responses, and its training on preference pairs."""
