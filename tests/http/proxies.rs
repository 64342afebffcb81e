//! Proxies of the environment.

use crate::servers::{Server, fine, get, open};

/// Set where this program runs for the one test below, with proxies in its environment.
const URL: &str = "OSSA_TEST_URL";

#[tokio::test]
async fn proxies_of_the_environment_are_not_asked() {
    if let Ok(url) = std::env::var(URL) {
        assert_eq!(get(&open(), &url).await.unwrap().body, b"direct");
        return;
    }
    let proxy = Server::answering(|_| fine("by the proxy")).await;
    let server = Server::answering(|_| fine("direct")).await;
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "proxies::proxies_of_the_environment_are_not_asked"]).env(URL, server.url("/"));
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, proxy.url(""));
    }
    for name in ["NO_PROXY", "no_proxy", "REQUEST_METHOD"] {
        command.env_remove(name);
    }
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((server.requests().len(), proxy.connections()), (1, 0));
}
