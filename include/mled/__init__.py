"""MLED, the Machine Learning Experiment Database."""
