//! The operations of the socket: method, path and the names they have in
//! error texts.

use std::fmt;

/// An HTTP method the contract uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Allocates.
    Post,
    /// Releases. Carries a JSON body, as POST does.
    Delete,
}

impl Method {
    /// The method as it stands on the request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An operation of the agent's API on the unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `GET /ipam/healthy`: is the agent able to serve?
    GetIpamHealthy,
    /// `POST /ipam/ip`: addresses for one interface of a Pod.
    PostIpamIp,
    /// `DELETE /ipam/ip`: give them back.
    DeleteIpamIp,
    /// `POST /ipam/ips`: declared, does nothing.
    PostIpamIps,
    /// `DELETE /ipam/ips`: give back addresses found to be in conflict.
    DeleteIpamIps,
    /// `GET /workloadendpoint`: what a Pod holds.
    GetWorkloadendpoint,
    /// `GET /coordinator/config`: for the coordinator plugin; not served by Orbweaver.
    GetCoordinatorConfig,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 7] = [
        Self::GetIpamHealthy,
        Self::PostIpamIp,
        Self::DeleteIpamIp,
        Self::PostIpamIps,
        Self::DeleteIpamIps,
        Self::GetWorkloadendpoint,
        Self::GetCoordinatorConfig,
    ];

    /// The HTTP method.
    pub const fn method(self) -> Method {
        match self {
            Self::GetIpamHealthy | Self::GetWorkloadendpoint | Self::GetCoordinatorConfig => {
                Method::Get
            }
            Self::PostIpamIp | Self::PostIpamIps => Method::Post,
            Self::DeleteIpamIp | Self::DeleteIpamIps => Method::Delete,
        }
    }

    /// The path below [`BASE_PATH`](super::BASE_PATH).
    pub const fn path(self) -> &'static str {
        match self {
            Self::GetIpamHealthy => "/ipam/healthy",
            Self::PostIpamIp | Self::DeleteIpamIp => "/ipam/ip",
            Self::PostIpamIps | Self::DeleteIpamIps => "/ipam/ips",
            Self::GetWorkloadendpoint => "/workloadendpoint",
            Self::GetCoordinatorConfig => "/coordinator/config",
        }
    }

    /// The whole path, as it stands on the request line.
    pub const fn full_path(self) -> &'static str {
        match self {
            Self::GetIpamHealthy => "/v1/ipam/healthy",
            Self::PostIpamIp | Self::DeleteIpamIp => "/v1/ipam/ip",
            Self::PostIpamIps | Self::DeleteIpamIps => "/v1/ipam/ips",
            Self::GetWorkloadendpoint => "/v1/workloadendpoint",
            Self::GetCoordinatorConfig => "/v1/coordinator/config",
        }
    }

    /// The operation id, as it stands in error texts.
    pub const fn id(self) -> &'static str {
        match self {
            Self::GetIpamHealthy => "getIpamHealthy",
            Self::PostIpamIp => "postIpamIp",
            Self::DeleteIpamIp => "deleteIpamIp",
            Self::PostIpamIps => "postIpamIps",
            Self::DeleteIpamIps => "deleteIpamIps",
            Self::GetWorkloadendpoint => "getWorkloadendpoint",
            Self::GetCoordinatorConfig => "getCoordinatorConfig",
        }
    }

    /// What follows the operation id in the text of a failure with `status`,
    /// or `None` when the contract does not declare that status.
    pub const fn failure_name(self, status: u16) -> Option<&'static str> {
        match (self, status) {
            (Self::GetIpamHealthy, 500) => Some("InternalServerError"),
            (Self::DeleteIpamIps, 521) => Some("Status521"),
            (Self::DeleteIpamIps, 522) => Some("Status522"),
            (Self::GetWorkloadendpoint, 404) => Some("NotFound"),
            (
                Self::PostIpamIp
                | Self::DeleteIpamIp
                | Self::PostIpamIps
                | Self::DeleteIpamIps
                | Self::GetWorkloadendpoint
                | Self::GetCoordinatorConfig,
                500,
            ) => Some("Failure"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::BASE_PATH;

    #[test]
    fn the_whole_path_is_the_base_and_the_path() {
        for operation in Operation::ALL {
            assert_eq!(
                operation.full_path(),
                format!("{BASE_PATH}{}", operation.path())
            );
        }
    }

    #[test]
    fn an_operation_id_begins_with_its_method() {
        for operation in Operation::ALL {
            let method = operation.method().as_str().to_lowercase();
            assert!(operation.id().starts_with(&method), "{operation:?}");
        }
    }
}
