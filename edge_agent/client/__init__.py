"""The process beside the data: a ClientApp that is loaded once and answers messages."""
