"""The routes that embed and rerank, whose paths name no pool, and the routes for the settings of a pool's batches."""
