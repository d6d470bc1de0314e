"""Any labels the user names: read once as a prefix, every text continues from it."""
