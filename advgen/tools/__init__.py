"""What a person looks at a run's files with, and takes them elsewhere."""
