mod codec;
mod forward;
mod resolve;
