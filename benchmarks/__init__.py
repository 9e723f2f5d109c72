"""One file a question: medssl and its best peer side by side in one run; the last line of output is JSON."""
