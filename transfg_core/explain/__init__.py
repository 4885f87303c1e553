"""Pictures of the places that a trained model looks at."""
