"""What a run takes of each device, known from the models' config.json alone, before anything starts."""
