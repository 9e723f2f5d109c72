"""What a run costs, and what a data set asks of a network, before the first step."""
