//! Metadata: hosts, tokens, labels, data sets, models.
