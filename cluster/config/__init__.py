"""A run's configuration: from YAML to one typed tree, with errors that name file and line."""
