"""How nautile-mini's backbone learns: its texts, its teacher, its objectives, one resumable run."""
