//! Which method takes which request: what lets [`super::Caller::call`] be typed without a function for each method.

use keyledger_proto::*;
use prost::Message;

/// A request of a method with one reply.
pub(crate) trait Rpc: Message + Default + 'static {
    type Reply: Message + Default + 'static;
    const PATH: &'static str;
}

impl Rpc for CreateKeyRequest {
    type Reply = CreateKeyResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/CreateKey";
}

impl Rpc for ImportKeysRequest {
    type Reply = ImportKeysResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/ImportKeys";
}

impl Rpc for GetKeyRequest {
    type Reply = GetKeyResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/GetKey";
}

impl Rpc for GetKeyUsageRequest {
    type Reply = GetKeyUsageResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/GetKeyUsage";
}

impl Rpc for GetUsageRequest {
    type Reply = GetUsageResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/GetUsage";
}

impl Rpc for ListKeysRequest {
    type Reply = ListKeysResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/ListKeys";
}

impl Rpc for RotateKeyRequest {
    type Reply = RotateKeyResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/RotateKey";
}

impl Rpc for RevokeKeyRequest {
    type Reply = RevokeKeyResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/RevokeKey";
}

impl Rpc for VerifyKeyRequest {
    type Reply = VerifyKeyResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/VerifyKey";
}

impl Rpc for ReportUsesRequest {
    type Reply = ReportUsesResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/ReportUses";
}

impl Rpc for WhoAmIRequest {
    type Reply = WhoAmIResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/WhoAmI";
}

impl Rpc for CreateRoleRequest {
    type Reply = CreateRoleResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/CreateRole";
}

impl Rpc for ListRolesRequest {
    type Reply = ListRolesResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/ListRoles";
}

impl Rpc for OpenLedgerRequest {
    type Reply = OpenLedgerResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/OpenLedger";
}

impl Rpc for ListLedgersRequest {
    type Reply = ListLedgersResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/ListLedgers";
}

impl Rpc for UpdateKeyRequest {
    type Reply = UpdateKeyResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/UpdateKey";
}

impl Rpc for SuspendKeyRequest {
    type Reply = SuspendKeyResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/SuspendKey";
}

impl Rpc for ResumeKeyRequest {
    type Reply = ResumeKeyResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/ResumeKey";
}

impl Rpc for BatchVerifyKeysRequest {
    type Reply = BatchVerifyKeysResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/BatchVerifyKeys";
}

impl Rpc for TestPermissionsRequest {
    type Reply = TestPermissionsResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/TestPermissions";
}

impl Rpc for LookupKeyRequest {
    type Reply = LookupKeyResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/LookupKey";
}

impl Rpc for WhoHasAccessRequest {
    type Reply = WhoHasAccessResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/WhoHasAccess";
}

impl Rpc for ListPermissionsRequest {
    type Reply = ListPermissionsResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/ListPermissions";
}

impl Rpc for RegisterPermissionsRequest {
    type Reply = RegisterPermissionsResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/RegisterPermissions";
}

impl Rpc for GetRoleRequest {
    type Reply = GetRoleResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/GetRole";
}

impl Rpc for UpdateRoleRequest {
    type Reply = UpdateRoleResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/UpdateRole";
}

impl Rpc for RetireRoleRequest {
    type Reply = RetireRoleResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/RetireRole";
}

impl Rpc for RevokeKeysRequest {
    type Reply = RevokeKeysResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/RevokeKeys";
}

impl Rpc for ListOwnersRequest {
    type Reply = ListOwnersResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/ListOwners";
}

impl Rpc for SetOwnerStatusRequest {
    type Reply = SetOwnerStatusResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/SetOwnerStatus";
}

impl Rpc for ListFindingsRequest {
    type Reply = ListFindingsResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/ListFindings";
}

impl Rpc for SignAccessReviewRequest {
    type Reply = SignAccessReviewResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/SignAccessReview";
}

impl Rpc for GetLedgerRequest {
    type Reply = GetLedgerResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/GetLedger";
}

impl Rpc for UpdateLedgerPolicyRequest {
    type Reply = UpdateLedgerPolicyResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/UpdateLedgerPolicy";
}

impl Rpc for RevokeBySecretRequest {
    type Reply = RevokeBySecretResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/RevokeBySecret";
}

impl Rpc for RecordEventsRequest {
    type Reply = RecordEventsResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/RecordEvents";
}

impl Rpc for ListEventsRequest {
    type Reply = ListEventsResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/ListEvents";
}

impl Rpc for CountEventsRequest {
    type Reply = CountEventsResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/CountEvents";
}

impl Rpc for GetEventRequest {
    type Reply = GetEventResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/GetEvent";
}

impl Rpc for RegisterProducerKeysRequest {
    type Reply = RegisterProducerKeysResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/RegisterProducerKeys";
}

impl Rpc for GetCategoryCountsRequest {
    type Reply = GetCategoryCountsResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/GetCategoryCounts";
}

impl Rpc for GetCheckpointRequest {
    type Reply = GetCheckpointResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/GetCheckpoint";
}

impl Rpc for ListAnomaliesRequest {
    type Reply = ListAnomaliesResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/ListAnomalies";
}

impl Rpc for AcknowledgeAnomalyRequest {
    type Reply = AcknowledgeAnomalyResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/AcknowledgeAnomaly";
}

impl Rpc for ListForwardersRequest {
    type Reply = ListForwardersResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/ListForwarders";
}

impl Rpc for DescribeKeyRequest {
    type Reply = DescribeKeyResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/DescribeKey";
}

impl Rpc for GetTraceRequest {
    type Reply = GetTraceResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/GetTrace";
}

/// A request of a method with a stream of replies.
pub(crate) trait StreamRpc: Message + Default + 'static {
    type Reply: Message + Default + 'static;
    const PATH: &'static str;
}

impl StreamRpc for StreamEventsRequest {
    type Reply = StreamEventsResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/StreamEvents";
}

impl StreamRpc for WatchAnomaliesRequest {
    type Reply = WatchAnomaliesResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/WatchAnomalies";
}

impl StreamRpc for ExportEventsRequest {
    type Reply = ExportEventsResponse;
    const PATH: &'static str = "/keyledger.v1.AuditService/ExportEvents";
}

impl StreamRpc for GetAccessReviewRequest {
    type Reply = GetAccessReviewResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/GetAccessReview";
}

impl StreamRpc for WatchKeysRequest {
    type Reply = WatchKeysResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/WatchKeys";
}

impl StreamRpc for DescribeLedgerRequest {
    type Reply = DescribeLedgerResponse;
    const PATH: &'static str = "/keyledger.v1.KeyService/DescribeLedger";
}
