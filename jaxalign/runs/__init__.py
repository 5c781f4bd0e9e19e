"""The directory of a run, the records in it, the stages of a job, and the display of progress."""
