//! Which endpoint next: pure, hot.
