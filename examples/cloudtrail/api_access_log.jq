# AWS CloudTrail events as records of api_access_log: one JSON object a line in, one out.
# README.md lists every field. Use: jq -c -f api_access_log.jq events.ndjson

def is_address: type == "string" and test("^([0-9]{1,3}\\.){3}[0-9]{1,3}$|^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$");

def status:
  (.errorCode // "") as $error
  | if $error == "" then 200
    elif $error | test("AccessDenied|Unauthorized|Forbidden|NotAuthorized") then 403
    elif $error | test("Throttl|RequestLimitExceeded|TooManyRequests|SlowDown") then 429
    elif $error | test("NoSuch|NotFound") then 404
    elif $error | test("InternalError|InternalFailure|ServiceUnavailable") then 500
    else 400
    end;

{
  request_id: .eventID,
  method: .eventName[:255],
  endpoint: .eventSource[:255],
  request_headers: ({
    identity: (.userIdentity | {type, arn, principalId, accountId, invokedBy} | del(..|nulls)),
    region: .awsRegion,
    request: .requestID,
    source: .sourceIPAddress,
    parameters: .requestParameters,
    error: .errorCode
  } | del(..|nulls)),
  response_status: status,
  bytes_sent: ((.additionalEventData.bytesTransferredOut? // 0) | floor),
  bytes_received: ((.additionalEventData.bytesTransferredIn? // 0) | floor),
  ip_address: (.sourceIPAddress | if is_address then . else null end),
  user_agent: (.userAgent | if . then .[:1000] else null end),
  api_key_id: .userIdentity.accessKeyId,
  created_at: .eventTime
}
| with_entries(select(.value != null))
