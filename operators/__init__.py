"""What a node of the graph can do. Imports neither Ray nor ZMQ nor the pipeline."""
