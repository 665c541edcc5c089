//! The protocol between agents and the leader's allocator, where the claims of all nodes on a pool
//! meet and become one write.
//!
//! Owns: what goes over the wire ([`wire`]), how the leader is found and known ([`announce`]). Never
//! does: serve (the controller's part) or ask (the agent's). HTTP/2 over TLS, a request a claim or
//! release; whoever no longer wants the answer resets the stream.
//!
//! **Nothing rests on this for safety.** A request is right to be carried out twice, late, or by
//! two allocators at once: the pool's version is the arbiter, and what is asked names the (uid, nic)
//! it is for. The pages that argue it: `src/pool_writer/commit.rs`, `src/agent/paths.rs`.

pub mod announce;
pub mod wire;
