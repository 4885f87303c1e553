"""Pictures of what a trained model looks at."""
