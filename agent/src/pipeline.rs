//! From sensors to the buffer and the detector.
