"""The custom resource ``GeneratorPool``: its models, its definition, its names."""
