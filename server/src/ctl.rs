//! picketctl: the operators' command line.
