"""The stages as programs: read the recipe, call advgen, return an exit code."""
