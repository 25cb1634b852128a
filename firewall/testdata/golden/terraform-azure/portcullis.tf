# The firewall of a Portcullis node: network contract, profile portcullis.
# Associate the group with the nodes' subnet or interfaces.
# Azure has no ICMPv6 in its rules: echo between nodes is allowed over IPv4 alone.
# Everything that no row declares is dropped, in both directions: add rules of your own for what
# this host needs beside the appliance, such as time servers (NTP) and DHCP.
# Not allowed here:
#   row social: no address of accounts.example.net is known: --address accounts.example.net=ADDRESS says it, --resolve asks for it

variable "resource_group_name" {
  type        = string
  description = "Resource group of the nodes"
}

variable "location" {
  type        = string
  description = "Region of the nodes"
}

locals {
  nodes_v4      = ["10.0.0.11/32", "10.0.0.12/32", "10.0.0.13/32"]
  nodes_v6      = ["fd00::11/128", "fd00::12/128", "fd00::13/128"]
  lb_v4         = ["10.0.0.5/32"]
  lb_v6         = ["fd00::5/128"]
  cli_v4        = ["10.0.9.7/32"]
  depot_v4      = ["10.0.0.9/32"]
  depot_v6      = ["fd00::9/128"]
  jump_host_v4  = ["10.0.9.2/32"]
  monitoring_v4 = ["10.0.9.0/28"]
  monitoring_v6 = ["fd00:9::/64"]
  dns_v4        = ["10.0.0.53/32"]
  dns_v6        = ["fd00::53/128"]
  providers_v4  = ["192.0.2.10/32"]
  smtp_v4       = ["10.0.0.25/32"]
  traces_v4     = ["10.0.0.18/32"]
}

resource "azurerm_network_security_group" "portcullis_node" {
  name                = "portcullis-node"
  location            = var.location
  resource_group_name = var.resource_group_name
}

# row database
resource "azurerm_network_security_rule" "database_in_tcp_v4" {
  name                        = "database-in-tcp-v4"
  description                 = "row database"
  priority                    = 100
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["27017"]
  source_address_prefixes     = local.nodes_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row control
resource "azurerm_network_security_rule" "control_in_tcp_v4" {
  name                        = "control-in-tcp-v4"
  description                 = "row control"
  priority                    = 110
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["7777"]
  source_address_prefixes     = local.nodes_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row rate-limit
resource "azurerm_network_security_rule" "rate_limit_in_tcp_v4" {
  name                        = "rate-limit-in-tcp-v4"
  description                 = "row rate-limit"
  priority                    = 120
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["9001"]
  source_address_prefixes     = local.nodes_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row webtask-logs
resource "azurerm_network_security_rule" "webtask_logs_in_tcp_v4" {
  name                        = "webtask-logs-in-tcp-v4"
  description                 = "row webtask-logs"
  priority                    = 130
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["8721"]
  source_address_prefixes     = local.nodes_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row webtask-control
resource "azurerm_network_security_rule" "webtask_control_in_tcp_v4" {
  name                        = "webtask-control-in-tcp-v4"
  description                 = "row webtask-control"
  priority                    = 140
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["8701"]
  source_address_prefixes     = local.nodes_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row search-http
resource "azurerm_network_security_rule" "search_http_in_tcp_v4" {
  name                        = "search-http-in-tcp-v4"
  description                 = "row search-http"
  priority                    = 150
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["9200"]
  source_address_prefixes     = local.nodes_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row search-transport
resource "azurerm_network_security_rule" "search_transport_in_tcp_v4" {
  name                        = "search-transport-in-tcp-v4"
  description                 = "row search-transport"
  priority                    = 160
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["9300-9400"]
  source_address_prefixes     = local.nodes_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row grafana
resource "azurerm_network_security_rule" "grafana_in_tcp_v4" {
  name                        = "grafana-in-tcp-v4"
  description                 = "row grafana"
  priority                    = 170
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["3000"]
  source_address_prefixes     = local.nodes_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row maintenance
resource "azurerm_network_security_rule" "maintenance_in_tcp_v4" {
  name                        = "maintenance-in-tcp-v4"
  description                 = "row maintenance"
  priority                    = 180
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["22"]
  source_address_prefixes     = local.nodes_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row icmp
resource "azurerm_network_security_rule" "icmp_in_icmp_v4" {
  name                        = "icmp-in-icmp-v4"
  description                 = "row icmp"
  priority                    = 190
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Icmp"
  source_port_range           = "*"
  destination_port_range      = "*"
  source_address_prefixes     = local.nodes_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row lb
resource "azurerm_network_security_rule" "lb_in_tcp_v4" {
  name                        = "lb-in-tcp-v4"
  description                 = "row lb"
  priority                    = 200
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["80", "443", "4443"]
  source_address_prefixes     = local.lb_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row cli
resource "azurerm_network_security_rule" "cli_in_tcp_v4" {
  name                        = "cli-in-tcp-v4"
  description                 = "row cli"
  priority                    = 210
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["10121"]
  source_address_prefixes     = local.cli_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row jump-host
resource "azurerm_network_security_rule" "jump_host_in_tcp_v4" {
  name                        = "jump-host-in-tcp-v4"
  description                 = "row jump-host"
  priority                    = 220
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["22"]
  source_address_prefixes     = local.jump_host_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row health
resource "azurerm_network_security_rule" "health_in_tcp_v4" {
  name                        = "health-in-tcp-v4"
  description                 = "row health"
  priority                    = 230
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["9110"]
  source_address_prefixes     = local.monitoring_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row dns
resource "azurerm_network_security_rule" "dns_in_tcp_v4" {
  name                        = "dns-in-tcp-v4"
  description                 = "row dns"
  priority                    = 240
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["53"]
  source_address_prefixes     = local.dns_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row dns
resource "azurerm_network_security_rule" "dns_in_udp_v4" {
  name                        = "dns-in-udp-v4"
  description                 = "row dns"
  priority                    = 250
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Udp"
  source_port_range           = "*"
  destination_port_ranges     = ["53"]
  source_address_prefixes     = local.dns_v4
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row database
resource "azurerm_network_security_rule" "database_in_tcp_v6" {
  name                        = "database-in-tcp-v6"
  description                 = "row database"
  priority                    = 260
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["27017"]
  source_address_prefixes     = local.nodes_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row control
resource "azurerm_network_security_rule" "control_in_tcp_v6" {
  name                        = "control-in-tcp-v6"
  description                 = "row control"
  priority                    = 270
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["7777"]
  source_address_prefixes     = local.nodes_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row rate-limit
resource "azurerm_network_security_rule" "rate_limit_in_tcp_v6" {
  name                        = "rate-limit-in-tcp-v6"
  description                 = "row rate-limit"
  priority                    = 280
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["9001"]
  source_address_prefixes     = local.nodes_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row webtask-logs
resource "azurerm_network_security_rule" "webtask_logs_in_tcp_v6" {
  name                        = "webtask-logs-in-tcp-v6"
  description                 = "row webtask-logs"
  priority                    = 290
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["8721"]
  source_address_prefixes     = local.nodes_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row webtask-control
resource "azurerm_network_security_rule" "webtask_control_in_tcp_v6" {
  name                        = "webtask-control-in-tcp-v6"
  description                 = "row webtask-control"
  priority                    = 300
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["8701"]
  source_address_prefixes     = local.nodes_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row search-http
resource "azurerm_network_security_rule" "search_http_in_tcp_v6" {
  name                        = "search-http-in-tcp-v6"
  description                 = "row search-http"
  priority                    = 310
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["9200"]
  source_address_prefixes     = local.nodes_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row search-transport
resource "azurerm_network_security_rule" "search_transport_in_tcp_v6" {
  name                        = "search-transport-in-tcp-v6"
  description                 = "row search-transport"
  priority                    = 320
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["9300-9400"]
  source_address_prefixes     = local.nodes_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row grafana
resource "azurerm_network_security_rule" "grafana_in_tcp_v6" {
  name                        = "grafana-in-tcp-v6"
  description                 = "row grafana"
  priority                    = 330
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["3000"]
  source_address_prefixes     = local.nodes_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row maintenance
resource "azurerm_network_security_rule" "maintenance_in_tcp_v6" {
  name                        = "maintenance-in-tcp-v6"
  description                 = "row maintenance"
  priority                    = 340
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["22"]
  source_address_prefixes     = local.nodes_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row lb
resource "azurerm_network_security_rule" "lb_in_tcp_v6" {
  name                        = "lb-in-tcp-v6"
  description                 = "row lb"
  priority                    = 350
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["80", "443", "4443"]
  source_address_prefixes     = local.lb_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row health
resource "azurerm_network_security_rule" "health_in_tcp_v6" {
  name                        = "health-in-tcp-v6"
  description                 = "row health"
  priority                    = 360
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["9110"]
  source_address_prefixes     = local.monitoring_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row dns
resource "azurerm_network_security_rule" "dns_in_tcp_v6" {
  name                        = "dns-in-tcp-v6"
  description                 = "row dns"
  priority                    = 370
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Tcp"
  source_port_range           = "*"
  destination_port_ranges     = ["53"]
  source_address_prefixes     = local.dns_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row dns
resource "azurerm_network_security_rule" "dns_in_udp_v6" {
  name                        = "dns-in-udp-v6"
  description                 = "row dns"
  priority                    = 380
  direction                   = "Inbound"
  access                      = "Allow"
  protocol                    = "Udp"
  source_port_range           = "*"
  destination_port_ranges     = ["53"]
  source_address_prefixes     = local.dns_v6
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# no row
resource "azurerm_network_security_rule" "drop_in" {
  name                        = "drop-in"
  description                 = "no row"
  priority                    = 4096
  direction                   = "Inbound"
  access                      = "Deny"
  protocol                    = "*"
  source_port_range           = "*"
  destination_port_range      = "*"
  source_address_prefix       = "*"
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}

# row database
resource "azurerm_network_security_rule" "database_out_tcp_v4" {
  name                         = "database-out-tcp-v4"
  description                  = "row database"
  priority                     = 100
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["27017"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row control
resource "azurerm_network_security_rule" "control_out_tcp_v4" {
  name                         = "control-out-tcp-v4"
  description                  = "row control"
  priority                     = 110
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["7777"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row rate-limit
resource "azurerm_network_security_rule" "rate_limit_out_tcp_v4" {
  name                         = "rate-limit-out-tcp-v4"
  description                  = "row rate-limit"
  priority                     = 120
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["9001"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row webtask-logs
resource "azurerm_network_security_rule" "webtask_logs_out_tcp_v4" {
  name                         = "webtask-logs-out-tcp-v4"
  description                  = "row webtask-logs"
  priority                     = 130
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["8721"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row webtask-control
resource "azurerm_network_security_rule" "webtask_control_out_tcp_v4" {
  name                         = "webtask-control-out-tcp-v4"
  description                  = "row webtask-control"
  priority                     = 140
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["8701"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row search-http
resource "azurerm_network_security_rule" "search_http_out_tcp_v4" {
  name                         = "search-http-out-tcp-v4"
  description                  = "row search-http"
  priority                     = 150
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["9200"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row search-transport
resource "azurerm_network_security_rule" "search_transport_out_tcp_v4" {
  name                         = "search-transport-out-tcp-v4"
  description                  = "row search-transport"
  priority                     = 160
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["9300-9400"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row grafana
resource "azurerm_network_security_rule" "grafana_out_tcp_v4" {
  name                         = "grafana-out-tcp-v4"
  description                  = "row grafana"
  priority                     = 170
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["3000"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row maintenance
resource "azurerm_network_security_rule" "maintenance_out_tcp_v4" {
  name                         = "maintenance-out-tcp-v4"
  description                  = "row maintenance"
  priority                     = 180
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["22"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row icmp
resource "azurerm_network_security_rule" "icmp_out_icmp_v4" {
  name                         = "icmp-out-icmp-v4"
  description                  = "row icmp"
  priority                     = 190
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Icmp"
  source_port_range            = "*"
  destination_port_range       = "*"
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row webtask-callback
resource "azurerm_network_security_rule" "webtask_callback_out_tcp_v4" {
  name                         = "webtask-callback-out-tcp-v4"
  description                  = "row webtask-callback"
  priority                     = 200
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.lb_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row cli
resource "azurerm_network_security_rule" "cli_out_tcp_v4" {
  name                         = "cli-out-tcp-v4"
  description                  = "row cli"
  priority                     = 210
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["10121"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.cli_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row update-packages
resource "azurerm_network_security_rule" "update_packages_out_tcp_v4" {
  name                         = "update-packages-out-tcp-v4"
  description                  = "row update-packages"
  priority                     = 220
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["80", "443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.depot_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row update-images
resource "azurerm_network_security_rule" "update_images_out_tcp_v4" {
  name                         = "update-images-out-tcp-v4"
  description                  = "row update-images"
  priority                     = 230
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.depot_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row cdn
resource "azurerm_network_security_rule" "cdn_out_tcp_v4" {
  name                         = "cdn-out-tcp-v4"
  description                  = "row cdn"
  priority                     = 240
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.depot_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row examples
resource "azurerm_network_security_rule" "examples_out_tcp_v4" {
  name                         = "examples-out-tcp-v4"
  description                  = "row examples"
  priority                     = 250
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.depot_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row telemetry
resource "azurerm_network_security_rule" "telemetry_out_tcp_v4" {
  name                         = "telemetry-out-tcp-v4"
  description                  = "row telemetry"
  priority                     = 260
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.depot_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row dns
resource "azurerm_network_security_rule" "dns_out_tcp_v4" {
  name                         = "dns-out-tcp-v4"
  description                  = "row dns"
  priority                     = 270
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["53"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.dns_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row dns
resource "azurerm_network_security_rule" "dns_out_udp_v4" {
  name                         = "dns-out-udp-v4"
  description                  = "row dns"
  priority                     = 280
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Udp"
  source_port_range            = "*"
  destination_port_ranges      = ["53"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.dns_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row social
resource "azurerm_network_security_rule" "social_out_tcp_v4" {
  name                         = "social-out-tcp-v4"
  description                  = "row social"
  priority                     = 290
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.providers_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row smtp
resource "azurerm_network_security_rule" "smtp_out_tcp_v4" {
  name                         = "smtp-out-tcp-v4"
  description                  = "row smtp"
  priority                     = 300
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["25", "465", "587"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.smtp_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row traces
resource "azurerm_network_security_rule" "traces_out_tcp_v4" {
  name                         = "traces-out-tcp-v4"
  description                  = "row traces"
  priority                     = 310
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["4318"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.traces_v4
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row database
resource "azurerm_network_security_rule" "database_out_tcp_v6" {
  name                         = "database-out-tcp-v6"
  description                  = "row database"
  priority                     = 320
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["27017"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row control
resource "azurerm_network_security_rule" "control_out_tcp_v6" {
  name                         = "control-out-tcp-v6"
  description                  = "row control"
  priority                     = 330
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["7777"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row rate-limit
resource "azurerm_network_security_rule" "rate_limit_out_tcp_v6" {
  name                         = "rate-limit-out-tcp-v6"
  description                  = "row rate-limit"
  priority                     = 340
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["9001"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row webtask-logs
resource "azurerm_network_security_rule" "webtask_logs_out_tcp_v6" {
  name                         = "webtask-logs-out-tcp-v6"
  description                  = "row webtask-logs"
  priority                     = 350
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["8721"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row webtask-control
resource "azurerm_network_security_rule" "webtask_control_out_tcp_v6" {
  name                         = "webtask-control-out-tcp-v6"
  description                  = "row webtask-control"
  priority                     = 360
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["8701"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row search-http
resource "azurerm_network_security_rule" "search_http_out_tcp_v6" {
  name                         = "search-http-out-tcp-v6"
  description                  = "row search-http"
  priority                     = 370
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["9200"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row search-transport
resource "azurerm_network_security_rule" "search_transport_out_tcp_v6" {
  name                         = "search-transport-out-tcp-v6"
  description                  = "row search-transport"
  priority                     = 380
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["9300-9400"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row grafana
resource "azurerm_network_security_rule" "grafana_out_tcp_v6" {
  name                         = "grafana-out-tcp-v6"
  description                  = "row grafana"
  priority                     = 390
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["3000"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row maintenance
resource "azurerm_network_security_rule" "maintenance_out_tcp_v6" {
  name                         = "maintenance-out-tcp-v6"
  description                  = "row maintenance"
  priority                     = 400
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["22"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.nodes_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row webtask-callback
resource "azurerm_network_security_rule" "webtask_callback_out_tcp_v6" {
  name                         = "webtask-callback-out-tcp-v6"
  description                  = "row webtask-callback"
  priority                     = 410
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.lb_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row update-packages
resource "azurerm_network_security_rule" "update_packages_out_tcp_v6" {
  name                         = "update-packages-out-tcp-v6"
  description                  = "row update-packages"
  priority                     = 420
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["80", "443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.depot_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row update-images
resource "azurerm_network_security_rule" "update_images_out_tcp_v6" {
  name                         = "update-images-out-tcp-v6"
  description                  = "row update-images"
  priority                     = 430
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.depot_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row cdn
resource "azurerm_network_security_rule" "cdn_out_tcp_v6" {
  name                         = "cdn-out-tcp-v6"
  description                  = "row cdn"
  priority                     = 440
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.depot_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row examples
resource "azurerm_network_security_rule" "examples_out_tcp_v6" {
  name                         = "examples-out-tcp-v6"
  description                  = "row examples"
  priority                     = 450
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.depot_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row telemetry
resource "azurerm_network_security_rule" "telemetry_out_tcp_v6" {
  name                         = "telemetry-out-tcp-v6"
  description                  = "row telemetry"
  priority                     = 460
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["443"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.depot_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row dns
resource "azurerm_network_security_rule" "dns_out_tcp_v6" {
  name                         = "dns-out-tcp-v6"
  description                  = "row dns"
  priority                     = 470
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Tcp"
  source_port_range            = "*"
  destination_port_ranges      = ["53"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.dns_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# row dns
resource "azurerm_network_security_rule" "dns_out_udp_v6" {
  name                         = "dns-out-udp-v6"
  description                  = "row dns"
  priority                     = 480
  direction                    = "Outbound"
  access                       = "Allow"
  protocol                     = "Udp"
  source_port_range            = "*"
  destination_port_ranges      = ["53"]
  source_address_prefix        = "*"
  destination_address_prefixes = local.dns_v6
  resource_group_name          = var.resource_group_name
  network_security_group_name  = azurerm_network_security_group.portcullis_node.name
}

# no row
resource "azurerm_network_security_rule" "drop_out" {
  name                        = "drop-out"
  description                 = "no row"
  priority                    = 4096
  direction                   = "Outbound"
  access                      = "Deny"
  protocol                    = "*"
  source_port_range           = "*"
  destination_port_range      = "*"
  source_address_prefix       = "*"
  destination_address_prefix  = "*"
  resource_group_name         = var.resource_group_name
  network_security_group_name = azurerm_network_security_group.portcullis_node.name
}
