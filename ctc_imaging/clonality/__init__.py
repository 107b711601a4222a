"""Do relapse and CTCs share a subclone? Relatedness of sequenced samples, and their tree."""
