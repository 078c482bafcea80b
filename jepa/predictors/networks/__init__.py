"""What predictors are built of."""
