//! Back to the queue.
