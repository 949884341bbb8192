"""Methods of reinforcement learning, composed of pure functions. :mod:`.catalogue` builds one by its name."""
