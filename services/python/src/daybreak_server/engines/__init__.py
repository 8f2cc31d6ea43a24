"""What runs work on a group of ranks: ``rank`` is what every group needs, ``gang`` runs jobs in lockstep."""
