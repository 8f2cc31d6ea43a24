"""The routes of pools that embed and rerank, whose paths name no pool, and of the settings of their batches."""
