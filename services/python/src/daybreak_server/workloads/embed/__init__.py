"""The workload ``embed`` turns texts into vectors. A group embeds the texts of all its callers in shared batches."""
