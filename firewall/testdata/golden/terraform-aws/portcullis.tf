# The firewall of a Portcullis node: network contract, profile portcullis.
# Give the group to every node. AWS drops what no rule allows; without egress blocks Terraform removes AWS's rule that allows everything out.
# Everything that no row declares is dropped, in both directions: add rules of your own for what
# this host needs beside the appliance, such as time servers (NTP) and DHCP.
# Not allowed here:
#   row social: no address of accounts.example.net is known: --address accounts.example.net=ADDRESS says it, --resolve asks for it

variable "vpc_id" {
  type        = string
  description = "VPC of the nodes"
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

resource "aws_security_group" "portcullis_node" {
  name        = "portcullis-node"
  description = "Portcullis network contract"
  vpc_id      = var.vpc_id
}

# row database
resource "aws_vpc_security_group_ingress_rule" "database_in_tcp_27017_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row database"
  ip_protocol       = "tcp"
  from_port         = 27017
  to_port           = 27017
  cidr_ipv4         = each.value
}

# row database
resource "aws_vpc_security_group_ingress_rule" "database_in_tcp_27017_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row database"
  ip_protocol       = "tcp"
  from_port         = 27017
  to_port           = 27017
  cidr_ipv6         = each.value
}

# row control
resource "aws_vpc_security_group_ingress_rule" "control_in_tcp_7777_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row control"
  ip_protocol       = "tcp"
  from_port         = 7777
  to_port           = 7777
  cidr_ipv4         = each.value
}

# row control
resource "aws_vpc_security_group_ingress_rule" "control_in_tcp_7777_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row control"
  ip_protocol       = "tcp"
  from_port         = 7777
  to_port           = 7777
  cidr_ipv6         = each.value
}

# row rate-limit
resource "aws_vpc_security_group_ingress_rule" "rate_limit_in_tcp_9001_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row rate-limit"
  ip_protocol       = "tcp"
  from_port         = 9001
  to_port           = 9001
  cidr_ipv4         = each.value
}

# row rate-limit
resource "aws_vpc_security_group_ingress_rule" "rate_limit_in_tcp_9001_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row rate-limit"
  ip_protocol       = "tcp"
  from_port         = 9001
  to_port           = 9001
  cidr_ipv6         = each.value
}

# row webtask-logs
resource "aws_vpc_security_group_ingress_rule" "webtask_logs_in_tcp_8721_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row webtask-logs"
  ip_protocol       = "tcp"
  from_port         = 8721
  to_port           = 8721
  cidr_ipv4         = each.value
}

# row webtask-logs
resource "aws_vpc_security_group_ingress_rule" "webtask_logs_in_tcp_8721_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row webtask-logs"
  ip_protocol       = "tcp"
  from_port         = 8721
  to_port           = 8721
  cidr_ipv6         = each.value
}

# row webtask-control
resource "aws_vpc_security_group_ingress_rule" "webtask_control_in_tcp_8701_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row webtask-control"
  ip_protocol       = "tcp"
  from_port         = 8701
  to_port           = 8701
  cidr_ipv4         = each.value
}

# row webtask-control
resource "aws_vpc_security_group_ingress_rule" "webtask_control_in_tcp_8701_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row webtask-control"
  ip_protocol       = "tcp"
  from_port         = 8701
  to_port           = 8701
  cidr_ipv6         = each.value
}

# row search-http
resource "aws_vpc_security_group_ingress_rule" "search_http_in_tcp_9200_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row search-http"
  ip_protocol       = "tcp"
  from_port         = 9200
  to_port           = 9200
  cidr_ipv4         = each.value
}

# row search-http
resource "aws_vpc_security_group_ingress_rule" "search_http_in_tcp_9200_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row search-http"
  ip_protocol       = "tcp"
  from_port         = 9200
  to_port           = 9200
  cidr_ipv6         = each.value
}

# row search-transport
resource "aws_vpc_security_group_ingress_rule" "search_transport_in_tcp_9300_9400_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row search-transport"
  ip_protocol       = "tcp"
  from_port         = 9300
  to_port           = 9400
  cidr_ipv4         = each.value
}

# row search-transport
resource "aws_vpc_security_group_ingress_rule" "search_transport_in_tcp_9300_9400_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row search-transport"
  ip_protocol       = "tcp"
  from_port         = 9300
  to_port           = 9400
  cidr_ipv6         = each.value
}

# row grafana
resource "aws_vpc_security_group_ingress_rule" "grafana_in_tcp_3000_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row grafana"
  ip_protocol       = "tcp"
  from_port         = 3000
  to_port           = 3000
  cidr_ipv4         = each.value
}

# row grafana
resource "aws_vpc_security_group_ingress_rule" "grafana_in_tcp_3000_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row grafana"
  ip_protocol       = "tcp"
  from_port         = 3000
  to_port           = 3000
  cidr_ipv6         = each.value
}

# row maintenance
resource "aws_vpc_security_group_ingress_rule" "maintenance_in_tcp_22_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row maintenance"
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_ipv4         = each.value
}

# row maintenance
resource "aws_vpc_security_group_ingress_rule" "maintenance_in_tcp_22_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row maintenance"
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_ipv6         = each.value
}

# row icmp
resource "aws_vpc_security_group_ingress_rule" "icmp_in_icmp_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row icmp"
  ip_protocol       = "icmp"
  from_port         = 8
  to_port           = -1
  cidr_ipv4         = each.value
}

# row icmp
resource "aws_vpc_security_group_ingress_rule" "icmp_in_icmp_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row icmp"
  ip_protocol       = "icmpv6"
  from_port         = 128
  to_port           = -1
  cidr_ipv6         = each.value
}

# row lb
resource "aws_vpc_security_group_ingress_rule" "lb_in_tcp_80_v4" {
  for_each          = toset(local.lb_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row lb"
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
  cidr_ipv4         = each.value
}

# row lb
resource "aws_vpc_security_group_ingress_rule" "lb_in_tcp_443_v4" {
  for_each          = toset(local.lb_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row lb"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
}

# row lb
resource "aws_vpc_security_group_ingress_rule" "lb_in_tcp_4443_v4" {
  for_each          = toset(local.lb_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row lb"
  ip_protocol       = "tcp"
  from_port         = 4443
  to_port           = 4443
  cidr_ipv4         = each.value
}

# row lb
resource "aws_vpc_security_group_ingress_rule" "lb_in_tcp_80_v6" {
  for_each          = toset(local.lb_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row lb"
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
  cidr_ipv6         = each.value
}

# row lb
resource "aws_vpc_security_group_ingress_rule" "lb_in_tcp_443_v6" {
  for_each          = toset(local.lb_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row lb"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv6         = each.value
}

# row lb
resource "aws_vpc_security_group_ingress_rule" "lb_in_tcp_4443_v6" {
  for_each          = toset(local.lb_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row lb"
  ip_protocol       = "tcp"
  from_port         = 4443
  to_port           = 4443
  cidr_ipv6         = each.value
}

# row cli
resource "aws_vpc_security_group_ingress_rule" "cli_in_tcp_10121_v4" {
  for_each          = toset(local.cli_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row cli"
  ip_protocol       = "tcp"
  from_port         = 10121
  to_port           = 10121
  cidr_ipv4         = each.value
}

# row jump-host
resource "aws_vpc_security_group_ingress_rule" "jump_host_in_tcp_22_v4" {
  for_each          = toset(local.jump_host_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row jump-host"
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_ipv4         = each.value
}

# row health
resource "aws_vpc_security_group_ingress_rule" "health_in_tcp_9110_v4" {
  for_each          = toset(local.monitoring_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row health"
  ip_protocol       = "tcp"
  from_port         = 9110
  to_port           = 9110
  cidr_ipv4         = each.value
}

# row health
resource "aws_vpc_security_group_ingress_rule" "health_in_tcp_9110_v6" {
  for_each          = toset(local.monitoring_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row health"
  ip_protocol       = "tcp"
  from_port         = 9110
  to_port           = 9110
  cidr_ipv6         = each.value
}

# row dns
resource "aws_vpc_security_group_ingress_rule" "dns_in_tcp_53_v4" {
  for_each          = toset(local.dns_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row dns"
  ip_protocol       = "tcp"
  from_port         = 53
  to_port           = 53
  cidr_ipv4         = each.value
}

# row dns
resource "aws_vpc_security_group_ingress_rule" "dns_in_tcp_53_v6" {
  for_each          = toset(local.dns_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row dns"
  ip_protocol       = "tcp"
  from_port         = 53
  to_port           = 53
  cidr_ipv6         = each.value
}

# row dns
resource "aws_vpc_security_group_ingress_rule" "dns_in_udp_53_v4" {
  for_each          = toset(local.dns_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row dns"
  ip_protocol       = "udp"
  from_port         = 53
  to_port           = 53
  cidr_ipv4         = each.value
}

# row dns
resource "aws_vpc_security_group_ingress_rule" "dns_in_udp_53_v6" {
  for_each          = toset(local.dns_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row dns"
  ip_protocol       = "udp"
  from_port         = 53
  to_port           = 53
  cidr_ipv6         = each.value
}

# row database
resource "aws_vpc_security_group_egress_rule" "database_out_tcp_27017_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row database"
  ip_protocol       = "tcp"
  from_port         = 27017
  to_port           = 27017
  cidr_ipv4         = each.value
}

# row database
resource "aws_vpc_security_group_egress_rule" "database_out_tcp_27017_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row database"
  ip_protocol       = "tcp"
  from_port         = 27017
  to_port           = 27017
  cidr_ipv6         = each.value
}

# row control
resource "aws_vpc_security_group_egress_rule" "control_out_tcp_7777_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row control"
  ip_protocol       = "tcp"
  from_port         = 7777
  to_port           = 7777
  cidr_ipv4         = each.value
}

# row control
resource "aws_vpc_security_group_egress_rule" "control_out_tcp_7777_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row control"
  ip_protocol       = "tcp"
  from_port         = 7777
  to_port           = 7777
  cidr_ipv6         = each.value
}

# row rate-limit
resource "aws_vpc_security_group_egress_rule" "rate_limit_out_tcp_9001_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row rate-limit"
  ip_protocol       = "tcp"
  from_port         = 9001
  to_port           = 9001
  cidr_ipv4         = each.value
}

# row rate-limit
resource "aws_vpc_security_group_egress_rule" "rate_limit_out_tcp_9001_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row rate-limit"
  ip_protocol       = "tcp"
  from_port         = 9001
  to_port           = 9001
  cidr_ipv6         = each.value
}

# row webtask-logs
resource "aws_vpc_security_group_egress_rule" "webtask_logs_out_tcp_8721_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row webtask-logs"
  ip_protocol       = "tcp"
  from_port         = 8721
  to_port           = 8721
  cidr_ipv4         = each.value
}

# row webtask-logs
resource "aws_vpc_security_group_egress_rule" "webtask_logs_out_tcp_8721_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row webtask-logs"
  ip_protocol       = "tcp"
  from_port         = 8721
  to_port           = 8721
  cidr_ipv6         = each.value
}

# row webtask-control
resource "aws_vpc_security_group_egress_rule" "webtask_control_out_tcp_8701_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row webtask-control"
  ip_protocol       = "tcp"
  from_port         = 8701
  to_port           = 8701
  cidr_ipv4         = each.value
}

# row webtask-control
resource "aws_vpc_security_group_egress_rule" "webtask_control_out_tcp_8701_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row webtask-control"
  ip_protocol       = "tcp"
  from_port         = 8701
  to_port           = 8701
  cidr_ipv6         = each.value
}

# row search-http
resource "aws_vpc_security_group_egress_rule" "search_http_out_tcp_9200_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row search-http"
  ip_protocol       = "tcp"
  from_port         = 9200
  to_port           = 9200
  cidr_ipv4         = each.value
}

# row search-http
resource "aws_vpc_security_group_egress_rule" "search_http_out_tcp_9200_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row search-http"
  ip_protocol       = "tcp"
  from_port         = 9200
  to_port           = 9200
  cidr_ipv6         = each.value
}

# row search-transport
resource "aws_vpc_security_group_egress_rule" "search_transport_out_tcp_9300_9400_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row search-transport"
  ip_protocol       = "tcp"
  from_port         = 9300
  to_port           = 9400
  cidr_ipv4         = each.value
}

# row search-transport
resource "aws_vpc_security_group_egress_rule" "search_transport_out_tcp_9300_9400_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row search-transport"
  ip_protocol       = "tcp"
  from_port         = 9300
  to_port           = 9400
  cidr_ipv6         = each.value
}

# row grafana
resource "aws_vpc_security_group_egress_rule" "grafana_out_tcp_3000_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row grafana"
  ip_protocol       = "tcp"
  from_port         = 3000
  to_port           = 3000
  cidr_ipv4         = each.value
}

# row grafana
resource "aws_vpc_security_group_egress_rule" "grafana_out_tcp_3000_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row grafana"
  ip_protocol       = "tcp"
  from_port         = 3000
  to_port           = 3000
  cidr_ipv6         = each.value
}

# row maintenance
resource "aws_vpc_security_group_egress_rule" "maintenance_out_tcp_22_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row maintenance"
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_ipv4         = each.value
}

# row maintenance
resource "aws_vpc_security_group_egress_rule" "maintenance_out_tcp_22_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row maintenance"
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_ipv6         = each.value
}

# row icmp
resource "aws_vpc_security_group_egress_rule" "icmp_out_icmp_v4" {
  for_each          = toset(local.nodes_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row icmp"
  ip_protocol       = "icmp"
  from_port         = 8
  to_port           = -1
  cidr_ipv4         = each.value
}

# row icmp
resource "aws_vpc_security_group_egress_rule" "icmp_out_icmp_v6" {
  for_each          = toset(local.nodes_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row icmp"
  ip_protocol       = "icmpv6"
  from_port         = 128
  to_port           = -1
  cidr_ipv6         = each.value
}

# row webtask-callback
resource "aws_vpc_security_group_egress_rule" "webtask_callback_out_tcp_443_v4" {
  for_each          = toset(local.lb_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row webtask-callback"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
}

# row webtask-callback
resource "aws_vpc_security_group_egress_rule" "webtask_callback_out_tcp_443_v6" {
  for_each          = toset(local.lb_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row webtask-callback"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv6         = each.value
}

# row cli
resource "aws_vpc_security_group_egress_rule" "cli_out_tcp_10121_v4" {
  for_each          = toset(local.cli_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row cli"
  ip_protocol       = "tcp"
  from_port         = 10121
  to_port           = 10121
  cidr_ipv4         = each.value
}

# row update-packages
resource "aws_vpc_security_group_egress_rule" "update_packages_out_tcp_80_v4" {
  for_each          = toset(local.depot_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row update-packages"
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
  cidr_ipv4         = each.value
}

# row update-packages
resource "aws_vpc_security_group_egress_rule" "update_packages_out_tcp_443_v4" {
  for_each          = toset(local.depot_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row update-packages"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
}

# row update-packages
resource "aws_vpc_security_group_egress_rule" "update_packages_out_tcp_80_v6" {
  for_each          = toset(local.depot_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row update-packages"
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
  cidr_ipv6         = each.value
}

# row update-packages
resource "aws_vpc_security_group_egress_rule" "update_packages_out_tcp_443_v6" {
  for_each          = toset(local.depot_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row update-packages"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv6         = each.value
}

# row update-images
resource "aws_vpc_security_group_egress_rule" "update_images_out_tcp_443_v4" {
  for_each          = toset(local.depot_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row update-images"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
}

# row update-images
resource "aws_vpc_security_group_egress_rule" "update_images_out_tcp_443_v6" {
  for_each          = toset(local.depot_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row update-images"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv6         = each.value
}

# row cdn
resource "aws_vpc_security_group_egress_rule" "cdn_out_tcp_443_v4" {
  for_each          = toset(local.depot_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row cdn"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
}

# row cdn
resource "aws_vpc_security_group_egress_rule" "cdn_out_tcp_443_v6" {
  for_each          = toset(local.depot_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row cdn"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv6         = each.value
}

# row examples
resource "aws_vpc_security_group_egress_rule" "examples_out_tcp_443_v4" {
  for_each          = toset(local.depot_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row examples"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
}

# row examples
resource "aws_vpc_security_group_egress_rule" "examples_out_tcp_443_v6" {
  for_each          = toset(local.depot_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row examples"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv6         = each.value
}

# row telemetry
resource "aws_vpc_security_group_egress_rule" "telemetry_out_tcp_443_v4" {
  for_each          = toset(local.depot_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row telemetry"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
}

# row telemetry
resource "aws_vpc_security_group_egress_rule" "telemetry_out_tcp_443_v6" {
  for_each          = toset(local.depot_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row telemetry"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv6         = each.value
}

# row dns
resource "aws_vpc_security_group_egress_rule" "dns_out_tcp_53_v4" {
  for_each          = toset(local.dns_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row dns"
  ip_protocol       = "tcp"
  from_port         = 53
  to_port           = 53
  cidr_ipv4         = each.value
}

# row dns
resource "aws_vpc_security_group_egress_rule" "dns_out_tcp_53_v6" {
  for_each          = toset(local.dns_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row dns"
  ip_protocol       = "tcp"
  from_port         = 53
  to_port           = 53
  cidr_ipv6         = each.value
}

# row dns
resource "aws_vpc_security_group_egress_rule" "dns_out_udp_53_v4" {
  for_each          = toset(local.dns_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row dns"
  ip_protocol       = "udp"
  from_port         = 53
  to_port           = 53
  cidr_ipv4         = each.value
}

# row dns
resource "aws_vpc_security_group_egress_rule" "dns_out_udp_53_v6" {
  for_each          = toset(local.dns_v6)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row dns"
  ip_protocol       = "udp"
  from_port         = 53
  to_port           = 53
  cidr_ipv6         = each.value
}

# row social
resource "aws_vpc_security_group_egress_rule" "social_out_tcp_443_v4" {
  for_each          = toset(local.providers_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row social"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
}

# row smtp
resource "aws_vpc_security_group_egress_rule" "smtp_out_tcp_25_v4" {
  for_each          = toset(local.smtp_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row smtp"
  ip_protocol       = "tcp"
  from_port         = 25
  to_port           = 25
  cidr_ipv4         = each.value
}

# row smtp
resource "aws_vpc_security_group_egress_rule" "smtp_out_tcp_465_v4" {
  for_each          = toset(local.smtp_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row smtp"
  ip_protocol       = "tcp"
  from_port         = 465
  to_port           = 465
  cidr_ipv4         = each.value
}

# row smtp
resource "aws_vpc_security_group_egress_rule" "smtp_out_tcp_587_v4" {
  for_each          = toset(local.smtp_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row smtp"
  ip_protocol       = "tcp"
  from_port         = 587
  to_port           = 587
  cidr_ipv4         = each.value
}

# row traces
resource "aws_vpc_security_group_egress_rule" "traces_out_tcp_4318_v4" {
  for_each          = toset(local.traces_v4)
  security_group_id = aws_security_group.portcullis_node.id
  description       = "row traces"
  ip_protocol       = "tcp"
  from_port         = 4318
  to_port           = 4318
  cidr_ipv4         = each.value
}
