"""`nautile bench speed`: nautile and its peers timed in turn, beside what this machine could do at best."""
