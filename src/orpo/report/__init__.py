"""One offline HTML page per run, and its model card: a run directory enters, report.html and README.md leave. No torch, no network."""
