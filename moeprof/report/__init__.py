"""Show an analysis or a study: terminal text, one offline HTML page, data files. Pure: same capture in, same bytes out."""
