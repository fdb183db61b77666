//! WebSocket habits.
