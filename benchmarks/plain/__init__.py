"""What a run costs beyond its models: the same five models by a plain script in one process.

No Spark, no Airflow, no store: the events and the catalogue that a finished run of the daily DAG
left are read with pyarrow, and numpy, scipy, gensim and LightGBM do the rest, by the same protocol.
Each model is evaluated on the run's own holdout and fitted again on everything; lists are made for
all users. Features are computed here too, from strictly earlier events. The two Keras parts are
Ferry's own trainers, on the features of this script.

The run's phases stand beside the script's parts, so that the table says where the rest goes.
"""
