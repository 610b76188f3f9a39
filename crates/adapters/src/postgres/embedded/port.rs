//! The port of the cluster: free when it was chosen, and kept until another program takes it.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use super::error::EmbeddedError;
use super::files;

pub fn choose(folder: &Path, notices: &mut Vec<String>) -> Result<u16, EmbeddedError> {
    let path = folder.join("port");
    let kept = kept(folder);
    if let Some(port) = kept.filter(|port| is_free(*port)) {
        return Ok(port);
    }
    let port = free_port().map_err(EmbeddedError::file(&path))?;
    files::write_private(&path, &port.to_string())?;
    if let Some(kept) = kept {
        notices.push(format!("Another program took the database's port {kept}: it listens on {port} from now on."));
    }
    Ok(port)
}

/// The port of the last start, which a running cluster still uses.
pub fn kept(folder: &Path) -> Option<u16> {
    fs::read_to_string(folder.join("port")).ok().and_then(|kept| kept.trim().parse().ok())
}

/// Stores the port: an adopted server may listen on another one than the file says.
pub fn keep(folder: &Path, port: u16) -> Result<(), EmbeddedError> {
    files::write_private(&folder.join("port"), &port.to_string())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::choose;
    use std::net::TcpListener;

    #[test]
    fn a_port_is_kept_until_somebody_takes_it() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let mut notices = Vec::new();
        let first = choose(folder.path(), &mut notices)?;
        assert_eq!(choose(folder.path(), &mut notices)?, first);
        assert!(notices.is_empty());
        let _taken = TcpListener::bind(("127.0.0.1", first))?;
        assert_ne!(choose(folder.path(), &mut notices)?, first);
        assert_eq!(notices.len(), 1, "{notices:?}");
        Ok(())
    }
}
