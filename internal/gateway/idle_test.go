package gateway

// idleClientsEnv makes the test binary a process that only holds client sockets.
const idleClientsEnv = "IM_GATEWAY_IDLE_CLIENTS"

func idleClients() {}
