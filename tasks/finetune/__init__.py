"""Fine-tuning: labelled rows in; an adapter, a checkpoint or a head out, with all that is known of it."""
