"""The models that are exported as PMML, one a module: each fits a Spark pipeline."""
