//! Advice for submissions that wait, were rejected or failed: one text for each known message of ECS, a container or
//! the bridge.
//!
//! The messages come from the ECS Developer Guide (*Amazon ECS stopped tasks error messages*, *Amazon ECS API failure
//! reasons*), the RunTask errors in the ECS API Reference, and the bridge. The advice is for people, and no decision
//! depends on it. A test generates the tables of `docs/troubleshooting.md` and the Python client's `advice.json` from
//! [`ADVICE`].

use crate::{
    record::{Hint, Record},
    state::State,
};

/// The condition under which an entry applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// The reasons of the record contain all of these texts, in any case.
    Contains(&'static [&'static str]),
    /// A reason of the record begins with this text, in any case.
    StartsWith(&'static str),
    /// The record has this hint.
    Hint(Hint),
    /// The container exited with this code.
    ExitCode(i32),
    /// The task has this stop code.
    StopCode(&'static str),
    /// The submission ended in this state.
    State(State),
}

/// One known problem and its advice.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The condition under which it applies.
    pub when: Matcher,
    /// The steps to take.
    pub advice: &'static str,
}

/// A section of the advice, with a table of its own in the guide.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// Its entries, of which the first that applies wins.
    pub entries: &'static [Entry],
}

const fn says(words: &'static [&'static str], advice: &'static str) -> Entry {
    Entry { when: Matcher::Contains(words), advice }
}

const fn begins(word: &'static str, advice: &'static str) -> Entry {
    Entry { when: Matcher::StartsWith(word), advice }
}

const fn exited(code: i32, advice: &'static str) -> Entry {
    Entry { when: Matcher::ExitCode(code), advice }
}

const fn stop_code(code: &'static str, advice: &'static str) -> Entry {
    Entry { when: Matcher::StopCode(code), advice }
}

const fn ended(state: State, advice: &'static str) -> Entry {
    Entry { when: Matcher::State(state), advice }
}

/// All advice. Specific entries come before general ones.
pub const ADVICE: &[Section] = &[
    Section {
        title: "The image cannot be pulled",
        entries: &[
            says(
                &["cannotpull", "manifest unknown"],
                "The image's tag does not exist. Push it, or correct `image` in the task definition.",
            ),
            says(
                &["cannotpull", "does not contain descriptor matching platform"],
                "The image is not built for the task's CPU architecture. Build it for that architecture, or set `runtimePlatform` in the task definition.",
            ),
            says(
                &["cannotpull", "no match for platform"],
                "The image is not built for the task's CPU architecture. Build it for that architecture, or set `runtimePlatform` in the task definition.",
            ),
            says(
                &["cannotpull", "toomanyrequests"],
                "The registry limits how often images are pulled. Use an ECR pull-through cache, or set credentials of a Docker Hub account in `repositoryCredentials`.",
            ),
            says(
                &["cannotpull", "pull rate limit"],
                "The registry limits how often images are pulled. Use an ECR pull-through cache, or set credentials of a Docker Hub account in `repositoryCredentials`.",
            ),
            says(
                &["cannotpull", "no space left on device"],
                "The image does not fit onto the task's disk. Set `ephemeralStorage` (Fargate), or free space on the container instances.",
            ),
            says(
                &["cannotpull", "403 forbidden"],
                "The registry denies access. The execution role needs `ecr:GetAuthorizationToken`, `ecr:BatchGetImage` and `ecr:GetDownloadUrlForLayer`, and the repository's policy must allow it.",
            ),
            says(
                &["cannotpull", "access denied"],
                "The registry denies access, or the repository does not exist. Check the image's name, the execution role's ECR permissions and the repository's policy.",
            ),
            says(
                &["cannotpull", "no basic auth credentials"],
                "The registry requires credentials. Set the execution role for ECR, or `repositoryCredentials` for another registry.",
            ),
            says(
                &["cannotpull", "timeout"],
                "The registry cannot be reached from the task's subnets. They need a NAT gateway, a public IP address (`assignPublicIp`), or VPC endpoints for ECR (api and dkr) and S3. The security group must allow outbound HTTPS.",
            ),
            says(
                &["cannotpull", "context canceled"],
                "The pull was canceled, usually because the network to the registry was too slow. Check the route to it, or use a smaller image.",
            ),
            says(
                &["cannotpull", "not found"],
                "The image does not exist. Check its repository, tag and Region in the task definition.",
            ),
            says(
                &["cannotpull"],
                "ECS cannot pull the image. Check its name, the execution role's permissions, and the route from the task's subnets to the registry.",
            ),
        ],
    },
    Section {
        title: "The task cannot be set up",
        entries: &[
            says(
                &["unable to pull secrets", "accessdenied"],
                "The execution role may not read a secret. It needs `secretsmanager:GetSecretValue` or `ssm:GetParameters` for the `secrets` of the task definition, and `kms:Decrypt` for their key.",
            ),
            says(
                &["unable to pull secrets", "resourcenotfound"],
                "A secret of the task definition does not exist in this Region. Correct its ARN in `secrets`.",
            ),
            says(
                &["unable to pull secrets"],
                "ECS cannot read the task's secrets or sign in to the registry. The task's subnets need a route to Secrets Manager, Systems Manager and ECR: a NAT gateway, a public IP address, or VPC endpoints. The execution role needs the permissions.",
            ),
            says(
                &["failed to validate logger args"],
                "The log group does not exist, or cannot be reached. Create the `awslogs-group` of the task definition (or set `awslogs-create-group`), allow `logs:CreateLogStream` and `logs:PutLogEvents`, and give the subnets a route to CloudWatch Logs.",
            ),
            says(
                &["failed to initialize logging driver"],
                "The log driver does not start. Check `logConfiguration` in the task definition: log group, Region, and the execution role's permissions on it.",
            ),
            says(
                &["failed to invoke efs utils"],
                "The EFS file system cannot be mounted. It needs a mount target in the task's subnet, a security group that allows inbound NFS (port 2049), and, if IAM authorization is on, a task role that may mount it.",
            ),
            says(
                &["failed to download env files"],
                "An environment file cannot be read. The execution role needs `s3:GetObject` on it and `s3:GetBucketLocation`. The subnets need a route to S3.",
            ),
            says(
                &["free addresses"],
                "The subnet has no free addresses left. Use larger or additional subnets in the profile.",
            ),
            says(
                &["insufficientfreeaddresses"],
                "The subnet has no free addresses left. Use larger or additional subnets in the profile.",
            ),
            says(
                &["create network interface"],
                "ECS cannot create the task's network interface. Check that the subnets exist and have free addresses, and that the account's quota of network interfaces is not used up.",
            ),
            says(
                &["timeout waiting for network interface"],
                "The task's network interface was not ready in time. This is usually transient. If it persists, check the subnets' free addresses.",
            ),
            says(
                &["preparing network interface"],
                "EC2 throttled the creation of network interfaces. The bridge starts another attempt. If this persists, lower the stack's `LaunchRate`.",
            ),
            says(
                &["ephemeralstorage"],
                "The task's ephemeral storage was not ready in time. This is usually transient. If it persists, contact AWS Support.",
            ),
            says(
                &["fetching secret data"],
                "ECS cannot read a secret of the task definition. Check its ARN in `secrets`, the execution role's `secretsmanager:GetSecretValue`, `ssm:GetParameters` and `kms:Decrypt`, and the route from the task's subnets to these services.",
            ),
            says(
                &["resourceinitializationerror"],
                "ECS cannot set up the task. The message names the step that failed. Usually the subnets have no route to the named service, or a permission of the execution role is missing.",
            ),
            says(
                &["cannotcreatevolumeerror"],
                "A volume of the task cannot be created or mounted. Check `volumes` in the task definition, and the file system's policy and security group.",
            ),
        ],
    },
    Section {
        title: "The container cannot be started",
        entries: &[
            says(
                &["cannotstartcontainer", "exec format error"],
                "The program is built for another CPU architecture. Build the image for that of the task, or set `runtimePlatform`.",
            ),
            says(
                &["cannotstartcontainer", "permission denied"],
                "The container's user may not execute the program. Set its execute permission in the image.",
            ),
            says(
                &["cannotstartcontainer", "executable file not found"],
                "The image does not contain this program. Check the command, and `PATH` in the image.",
            ),
            says(
                &["cannotstartcontainer", "no such file or directory"],
                "The image does not contain this program, or the interpreter that the program names. Check the command and the image.",
            ),
            says(
                &["cannotstartcontainer"],
                "The container runtime could not start the container. See the message for the reason, and check the command, the image's entry point, and the memory of the container.",
            ),
            says(
                &["cannotcreatecontainer"],
                "The container runtime cannot create the container. Check its `mountPoints`, `linuxParameters` and `ulimits` in the task definition.",
            ),
            says(
                &["containerruntimetimeout"],
                "The container runtime did not respond in time. On EC2 the host may be overloaded. Otherwise, retry.",
            ),
            says(
                &["dockertimeout"],
                "The container runtime did not respond in time. On EC2 the host may be overloaded. Otherwise, retry.",
            ),
            says(
                &["cannotstopcontainer"],
                "The container runtime could not stop the container. On EC2 check the host. On Fargate ECS stops the container later.",
            ),
            says(
                &["containerruntimeerror"],
                "The container runtime could not start the container. See the message for the reason, and retry.",
            ),
            says(
                &["cannotinspectcontainer"],
                "The container runtime could not report the container's outcome. Retry. On EC2 check the host's agent and runtime.",
            ),
            begins("internalerror", "ECS had an internal error. Retry. If it persists, contact AWS Support."),
            says(
                &["taskfailedtostart: internalerror"],
                "ECS had an internal error. Retry. If it persists, contact AWS Support.",
            ),
        ],
    },
    Section {
        title: "ECS has no capacity",
        entries: &[
            says(
                &["capacity is unavailable"],
                "Fargate currently has no capacity for this task, which on Spot may last for hours. Set `fallbacks` in the profile: on-demand capacity, or subnets in more Availability Zones.",
            ),
            says(
                &["resource:memory"],
                "No container instance has enough memory left. Let the cluster scale, request less memory, or set `fallbacks` in the profile.",
            ),
            says(
                &["resource:cpu"],
                "No container instance has enough CPU left. Let the cluster scale, request less CPU, or set `fallbacks` in the profile.",
            ),
            says(
                &["resource:eni"],
                "No container instance can attach another network interface. Use larger instances or turn on `awsvpcTrunking`. On Fargate raise the quota of network interfaces.",
            ),
            says(
                &["resource:gpu"],
                "No container instance has a free GPU. Let the cluster scale, or set `fallbacks` in the profile.",
            ),
            says(
                &["resource:ports"],
                "The host port is in use on every container instance. Use `awsvpc` networking, or dynamic host ports.",
            ),
            // Match the beginning only, because IAM's messages end with "on resource: arn:aws:…".
            begins(
                "resource:",
                "No container instance has the resources that the task requests. Let the cluster scale, or set `fallbacks` in the profile.",
            ),
            says(
                &["taskfailedtostart: resource:"],
                "No container instance has the resources that the task requests. Let the cluster scale, or set `fallbacks` in the profile.",
            ),
            begins(
                "agent",
                "The agents of the container instances are not connected. Check that the instances run and reach ECS.",
            ),
            begins(
                "attribute",
                "No container instance has an attribute that the task definition needs, such as a log driver, an architecture or a network mode. Use instances that have it.",
            ),
            says(
                &["no container instances were found"],
                "The cluster has no container instances. Let its capacity provider scale out, or launch on Fargate.",
            ),
            says(
                &["limit on the number of tasks"],
                "The quota of tasks is used up. Raise it in Service Quotas, or run fewer tasks concurrently.",
            ),
            says(
                &["limit on the number of vcpus"],
                "The quota of Fargate vCPUs is used up. Raise it in Service Quotas, or run fewer tasks concurrently.",
            ),
            begins(
                "limitexceeded",
                "A quota of ECS is used up. Raise it in Service Quotas, or run fewer tasks concurrently.",
            ),
            says(
                &["ecs has no capacity"],
                "ECS rejected launches of this profile because capacity is unavailable. The bridge retries every few seconds. Set `fallbacks` to use other capacity.",
            ),
        ],
    },
    Section {
        title: "RunTask is rejected",
        entries: &[
            says(
                &["service linked role"],
                "The account has no service-linked role for ECS yet. This usually resolves within minutes. Otherwise, run `aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com`.",
            ),
            says(
                &["service-linked role"],
                "The account has no service-linked role for ECS yet. This usually resolves within minutes. Otherwise, run `aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com`.",
            ),
            says(
                &["infrastructure role"],
                "ECS cannot use the infrastructure role of the task's volumes. It must exist, trust `ecs.amazonaws.com`, and have the permissions of `AmazonECSInfrastructureRolePolicyForVolumes`.",
            ),
            says(
                &["unable to assume", "role"],
                "ECS cannot assume the task's role. It must exist, and trust `ecs-tasks.amazonaws.com`. The bridge retries for an hour, because a new role takes minutes to become effective.",
            ),
            says(
                &["accessdenied", "iam:passrole"],
                "The bridge may not pass the task's role to ECS. Add the role to the stack's parameter `PassRoleArns`.",
            ),
            says(
                &["accessdenied", "tagresource"],
                "The bridge may not tag tasks on this cluster. Add the cluster to the stack's parameter `MoreClusterArns`.",
            ),
            says(
                &["accessdenied"],
                "The bridge's role is missing a permission that the message names. Check the stack's parameters for clusters, task definitions and roles, and service control policies.",
            ),
            says(
                &["unauthorizedoperation"],
                "The bridge's role or ECS is missing an EC2 permission that the message names. Check service control policies and the service-linked role of ECS.",
            ),
            says(
                &["requestlimitexceeded"],
                "EC2 or another service behind ECS throttled the call or failed. The bridge retries. If this persists, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["request limit exceeded"],
                "EC2 or another service behind ECS throttled the call or failed. The bridge retries. If this persists, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["rate exceeded"],
                "ECS throttles RunTask. The bridge retries. If this persists, lower the stack's `LaunchRate`, or request a higher rate in Service Quotas.",
            ),
            says(
                &["throttl"],
                "ECS throttles RunTask. The bridge retries. If this persists, lower the stack's `LaunchRate`, or request a higher rate in Service Quotas.",
            ),
            says(
                &["internal error has occurred"],
                "EC2 or another service behind ECS throttled the call or failed. The bridge retries. If this persists, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["errorcode: internal"],
                "EC2 or another service behind ECS throttled the call or failed. The bridge retries. If this persists, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["error code: internal"],
                "EC2 or another service behind ECS throttled the call or failed. The bridge retries. If this persists, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["errorcode: unavailable"],
                "EC2 or another service behind ECS throttled the call or failed. The bridge retries. If this persists, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["error code: unavailable"],
                "EC2 or another service behind ECS throttled the call or failed. The bridge retries. If this persists, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["service is unavailable"],
                "EC2 or another service behind ECS throttled the call or failed. The bridge retries. If this persists, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["serviceunavailable"],
                "EC2 or another service behind ECS throttled the call or failed. The bridge retries. If this persists, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["requesttimeout"],
                "EC2 or another service behind ECS throttled the call or failed. The bridge retries. If this persists, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["status code: 5"],
                "EC2 or another service behind ECS throttled the call or failed. The bridge retries. If this persists, lower the stack's `LaunchRate`, and see the AWS Health Dashboard.",
            ),
            says(
                &["signature expired"],
                "AWS rejects the signature because the caller's clock is wrong. Synchronize it with NTP.",
            ),
            says(
                &["signature not yet current"],
                "AWS rejects the signature because the caller's clock is wrong. Synchronize it with NTP.",
            ),
            says(
                &["requesttimetooskewed"],
                "AWS rejects the signature because the caller's clock is wrong. Synchronize it with NTP.",
            ),
            says(
                &["clusternotfound"],
                "The cluster does not exist in this account and Region. Correct `cluster` in the profile, or create it.",
            ),
            says(
                &["taskdefinition not found"],
                "The task definition does not exist in this account and Region. Register it, or correct `taskDefinition` in the profile.",
            ),
            says(
                &["unable to describe task definition"],
                "The task definition does not exist in this account and Region. Register it, or correct `taskDefinition` in the profile.",
            ),
            says(
                &["taskdefinition is inactive"],
                "The task definition was deregistered. Name an active revision, or the family alone for the latest.",
            ),
            says(
                &["no fargate configuration exists"],
                "Fargate does not support this combination of CPU and memory. Use a supported one, such as 512 CPU units with 1024 to 4096 MiB.",
            ),
            says(
                &["subnet"],
                "ECS does not accept the subnets. Check that they exist in this Region and in one VPC, and correct `networkConfiguration`.",
            ),
            says(
                &["security group"],
                "ECS does not accept the security groups. Check that they exist in the subnets' VPC, and correct `networkConfiguration`.",
            ),
            says(
                &["network configuration must be provided"],
                "A task definition with `awsvpc` networking needs `networkConfiguration` with subnets in the profile.",
            ),
            says(
                &["is not a container in the taskdefinition"],
                "The task definition has no container of this name. Correct `container_name` in the profile, or the container's name in the overrides.",
            ),
            says(
                &["platformunknown"],
                "This platform version does not exist. Leave `platformVersion` out, or set it to `LATEST`.",
            ),
            says(
                &["platformtaskdefinitionincompatibility"],
                "The task definition needs a newer platform version of Fargate. Leave `platformVersion` out, or set it to `LATEST`.",
            ),
            says(
                &["unsupportedfeature"],
                "ECS does not support this feature in this Region or for this launch type. The message names it.",
            ),
            says(&["blockedexception"], "AWS has blocked the account. Contact AWS Support."),
            says(
                &["no connection to ecs"],
                "The bridge cannot reach ECS, and retries. If its functions are in a VPC, they need a NAT gateway or a VPC endpoint for ECS.",
            ),
            says(&["expiredtoken"], "The bridge's credentials had expired. It retries with new ones."),
            says(&["serverexception"], "ECS had an internal error. The bridge repeats the call."),
            says(
                &["serialization"],
                "ECS cannot parse the request because a parameter has the wrong type. Correct the profile or the overrides.",
            ),
            says(
                &["validationexception"],
                "ECS rejects a parameter. The message names it. Correct it in the profile or the overrides.",
            ),
            says(
                &["clientexception"],
                "ECS rejects the request. See the message for the reason, and correct the profile or the overrides.",
            ),
            says(
                &["invalidparameter"],
                "ECS rejects a parameter. The message names it. Correct it in the profile or the overrides.",
            ),
        ],
    },
    Section {
        title: "The bridge",
        entries: &[
            says(
                &["the runners of its pool fail"],
                "The pool's containers fail to start. See the message for the reason. Launch the profile's task definition by hand, and check that its image has `ecs-bridge-runner`.",
            ),
            says(
                &["its runner reported no exit code"],
                "The pool's container ended while it ran the command. It was stopped, lost its host, or ran out of memory. Let the caller retry.",
            ),
            says(
                &["launch_timeout"],
                "The task did not start in time and was stopped. Check why it stayed in PROVISIONING or PENDING, or raise `launch_timeout`.",
            ),
            says(
                &["run_timeout"],
                "The command ran for too long and was stopped. Raise `run_timeout` in the profile, or make the command faster.",
            ),
        ],
    },
    Section {
        title: "The container failed",
        entries: &[
            Entry {
                when: Matcher::Hint(Hint::OutOfMemory),
                advice: "The container may have run out of memory. Give the task more memory: `overrides.memory` of the submission, or `memory` in the task definition. In Airflow you can also set it per try, with `by_try`.",
            },
            // These come before the exit codes, because they explain why a container was killed.
            says(
                &["maintenance", "infrastructure"],
                "AWS maintained the host and stopped the task. Let the caller retry.",
            ),
            says(&["taskretirement"], "AWS maintained the host and stopped the task. Let the caller retry."),
            stop_code(
                "SpotInterruption",
                "AWS reclaimed the Spot capacity. Let the caller retry, relaunch it on other capacity with `relaunch_on`, or run it on demand.",
            ),
            stop_code(
                "TerminationNotice",
                "The instance was about to be terminated. Let the caller retry, or relaunch it with `relaunch_on`.",
            ),
            stop_code(
                "InfrastructureHealth",
                "The host failed. Let the caller retry, or relaunch it with `relaunch_on`.",
            ),
            stop_code(
                "ServiceSchedulerInitiated",
                "A service's scheduler stopped the task, although no service should own it. Check which services use the cluster.",
            ),
            stop_code(
                "UserInitiated",
                "The task was stopped through StopTask, and not through the bridge. See CloudTrail for the caller.",
            ),
            exited(
                1,
                "The command failed. Read its output with `ecs-bridge logs`, or in the log group of the task definition.",
            ),
            exited(
                2,
                "The command was called with wrong arguments, or failed. Read its output with `ecs-bridge logs`.",
            ),
            exited(125, "The container runtime could not run the command. Check the command and the image."),
            exited(
                126,
                "The command was found but cannot be executed. Set its execute permission, or check its architecture.",
            ),
            exited(127, "The image has no such command. Check its name, and `PATH` in the image."),
            exited(134, "The command aborted itself (SIGABRT). Read its output with `ecs-bridge logs`."),
            exited(
                137,
                "The container was killed (SIGKILL). It did not respond to a stop within `stopTimeout`, or it ran out of memory.",
            ),
            exited(139, "The command crashed (SIGSEGV). Its output (`ecs-bridge logs`) or a core file shows where."),
            exited(143, "The container was asked to stop (SIGTERM) and stopped."),
            exited(200, "If it is a pool's runner, its configuration is wrong. Its log names the variable."),
            exited(
                201,
                "If it is a pool's runner, it found no AWS credentials. Set `taskRoleArn` in its task definition, and let the container reach 169.254.170.2 without a proxy.",
            ),
            exited(
                202,
                "If it is a pool's runner, the runner API rejected it. Attach the stack's `RunnerPolicyArn` to its task role, and add that role to `RunnerRoleArns`. Its log contains the reason.",
            ),
            exited(
                204,
                "If it is a pool's runner, the runner API did not respond for an hour. Check the runner's route to it, and the function's log.",
            ),
            stop_code("TaskFailedToStart", "The task could not be started. See the message for the reason."),
        ],
    },
    Section {
        title: "The submission failed",
        entries: &[
            ended(
                State::Expired,
                "It could not be launched before its deadline. Check the reason for the delay: capacity, the launch rate, or an outage.",
            ),
            ended(
                State::Lost,
                "The outcome is unknown and the command may have run. Check the cluster for its task, and check the command's side effects, before you run it again.",
            ),
            ended(
                State::Rejected,
                "ECS rejected the launch permanently. See the message for the reason, correct the profile or the overrides, and submit it under another ID.",
            ),
            ended(
                State::Failed,
                "The command did not succeed. Read its output with `ecs-bridge logs`, or in the log group of the task definition.",
            ),
        ],
    },
];

impl Matcher {
    fn fits_reasons(&self, reasons: &[String]) -> bool {
        match self {
            Self::Contains(words) => reasons.iter().any(|reason| words.iter().all(|word| reason.contains(word))),
            Self::StartsWith(word) => reasons.iter().any(|reason| reason.starts_with(word)),
            Self::Hint(_) | Self::ExitCode(_) | Self::StopCode(_) | Self::State(_) => false,
        }
    }
}

fn first(fits: impl Fn(&Matcher) -> bool) -> Option<&'static str> {
    let mut entries = ADVICE.iter().flat_map(|chapter| chapter.entries);
    entries.find(|entry| fits(&entry.when)).map(|entry| entry.advice)
}

/// Returns the advice for a rejected RunTask call, by its error code and message.
pub fn of_refusal(reason: &str) -> Option<&'static str> {
    let reasons = [reason.to_ascii_lowercase()];
    first(|when| when.fits_reasons(&reasons))
}

/// Returns the advice for a submission in its current state, or nothing if there is no problem.
pub fn advice(record: &Record) -> Option<&'static str> {
    let reasons = [&record.attempt.reason, &record.attempt.stopped_reason].into_iter().flatten();
    let reasons: Vec<_> = reasons.map(|reason| reason.to_ascii_lowercase()).collect();
    let is_well = matches!(record.state(), State::Succeeded | State::Cancelled);
    first(|when| match when {
        Matcher::Hint(hint) => record.attempt.hint == Some(*hint),
        _ if is_well => false,
        Matcher::Contains(_) | Matcher::StartsWith(_) => when.fits_reasons(&reasons),
        Matcher::ExitCode(code) => record.attempt.exit_code == Some(*code),
        Matcher::StopCode(code) => record.state().is_terminal() && record.attempt.stop_code.as_deref() == Some(code),
        Matcher::State(state) => record.state() == *state,
    })
}
