"""What is kept on disk: manifests, JSON, whole files, capture folders, baselines."""
