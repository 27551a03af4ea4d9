# AWS CloudTrail events as records of security_audit_log: one JSON object a line in, one out.
# README.md lists every field. Use: jq -c -f security_audit_log.jq events.ndjson

def is_address: type == "string" and test("^([0-9]{1,3}\\.){3}[0-9]{1,3}$|^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$");

def denied:
  ((.errorCode // "") | test("AccessDenied|Unauthorized|Forbidden|NotAuthorized"))
  or .responseElements.ConsoleLogin? == "Failure";

def authenticates:
  .eventSource == "signin.amazonaws.com" or .eventType == "AwsConsoleSignIn"
  or (.eventSource == "sts.amazonaws.com" and (.eventName | test("^(AssumeRole|GetSessionToken|GetFederationToken)")));

def changes_permissions:
  (.eventSource | test("^(iam|organizations|sso|sso-directory)\\.amazonaws\\.com$")) and .readOnly != true;

def reads_data:
  .eventCategory == "Data"
  or (.eventName | test("^(GetObject|GetSecretValue|BatchGetSecretValue|GetParameter|GetParameters|GetParametersByPath|Decrypt|GetPasswordData)$"));

def category:
  if authenticates then "AUTHENTICATION"
  elif denied or changes_permissions then "AUTHORIZATION"
  elif reads_data then "DATA_ACCESS"
  else "SYSTEM"
  end;

def hides_traces:
  .eventName | test("^(StopLogging|DeleteTrail|UpdateTrail|PutEventSelectors|DeleteFlowLogs|DeleteDetector|LeaveOrganization)$");

def severity:
  if hides_traces then 4
  elif denied then 3
  elif .errorCode != null or changes_permissions then 2
  else 1
  end;

severity as $severity
| {
    event_type: .eventName[:50],
    event_category: category,
    severity: $severity,
    username: ((.userIdentity | .userName // .sessionContext.sessionIssuer.userName? // .invokedBy // .principalId // .type) | if . then .[:100] else null end),
    session_id: (.userIdentity.accessKeyId | if . and startswith("ASIA") then . else null end),
    ip_address: (.sourceIPAddress | if is_address then . else "0.0.0.0" end),
    user_agent: (.userAgent | if . then .[:1000] else null end),
    resource_accessed: ((.resources[0].ARN? // (.requestParameters | if type == "object" then .roleArn // .bucketName // .userName // .roleName // .secretId // .instanceId // .name else null end))
      | if type == "string" then .[:500] else null end),
    permission_checked: ((.eventSource | split(".")[0]) + ":" + .eventName)[:200],
    access_granted: (if denied then false elif .errorCode then null else true end),
    failure_reason: (if .errorCode or .errorMessage then ([.errorCode, .errorMessage] | map(select(. != null)) | join(": "))[:1000] else null end),
    risk_score: [0, 5, 25, 50, 90][$severity],
    geolocation_data: ({region: .awsRegion, source: .sourceIPAddress} | del(..|nulls)),
    requires_investigation: ($severity == 4),
    event_time: .eventTime
  }
| with_entries(select(.value != null))
