//! SASL exchanges in both roles: against the RFCs' examples, against each other, and against
//! hostile peers.

mod both_roles;
mod choosing;
mod hostile_clients;
mod hostile_servers;
mod secrets;
mod support;
mod vectors;
